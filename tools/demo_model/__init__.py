"""The pieces of tools/train_demo_model.py: text generators, tokenizer, training and evaluation of models/demo."""
