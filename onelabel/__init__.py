"""What train.py, predict.py and the notebooks need beside segutils.py."""
