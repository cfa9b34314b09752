"""Run a program file on given clips and print how far its logits are from the expected ones; needs no Sightline.

python -I standalone_check.py model.pt2 cases.safetensors

It is run by path in a process of its own, in which ``sightline`` cannot be imported even where it is installed. The
cases are pairs of tensors, ``clips.<n>`` and ``logits.<n>``, of several batch sizes. The exit code is 3 where the
package that runs the program is missing.
"""

import sys

import safetensors.torch
import torch

MISSING = 3


def main(program: str, cases: str) -> int:
    """Print the largest difference over all cases, relative to the largest logit where that is above 1."""
    if program.endswith(".onnx"):
        try:
            import onnxruntime
        except ImportError:
            return MISSING
        session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
        run = lambda clips: torch.from_numpy(session.run(["logits"], {"clips": clips.numpy()})[0])  # noqa: E731
    else:
        run = torch.export.load(program).module()
    tensors = safetensors.torch.load_file(cases)
    with torch.no_grad():
        pairs = [(run(tensors[name]), tensors[name.replace("clips", "logits")]) for name in tensors if "clips" in name]
    # A maximum of numbers that holds NaN is NaN in PyTorch, so nothing broken passes for equal.
    print(max((came - wanted).abs().max().item() / max(1.0, wanted.abs().max().item()) for came, wanted in pairs))
    return 0


if __name__ == "__main__":
    sys.modules["sightline"] = None  # type: ignore[assignment]  # makes every import of it fail
    sys.exit(main(*sys.argv[1:]))
