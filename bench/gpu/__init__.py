"""What is measured and tried on a real GPU. Runs on a machine that has little but PyTorch."""
