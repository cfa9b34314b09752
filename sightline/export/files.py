"""What the files of an exported model's folder are called; who only looks for them needs nothing else."""

DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
CHECKPOINT = "model.ckpt"
