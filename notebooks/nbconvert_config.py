"""Export train.ipynb and predict.ipynb to the scripts at the top of the project.

    jupyter nbconvert --config notebooks/nbconvert_config.py

A cell tagged `notebook-only` stays in the notebook; a raw cell goes only to the script;
every other code cell goes to both.
"""

from pathlib import Path


here = Path(__file__).resolve().parent
c = get_config()  # noqa: F821 - nbconvert defines it
c.NbConvertApp.export_format = "python"
c.NbConvertApp.notebooks = [str(here / "train.ipynb"), str(here / "predict.ipynb")]
c.FilesWriter.build_directory = str(here.parent)
c.PythonExporter.template_file = str(here / "script.py.j2")
c.PythonExporter.exclude_markdown = True
c.TagRemovePreprocessor.remove_cell_tags = {"notebook-only"}
