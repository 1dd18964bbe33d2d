"""Fine-tuning: a feature store in, a run with its checkpoint out.

    lengua train stores/es --out runs/es            # training/train.py:train

Nothing is imported here: the records of runs and recipes (`runs.py`, `recipes.py`) are read without torch.
"""
