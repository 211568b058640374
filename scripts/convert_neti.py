#!/usr/bin/env python3
"""Converts a concept of NeTI's authors (mapper-*.pt, learned_embeds-*.bin) to a concept file.

    convert_neti.py --mapper mapper-final.pt --embeds learned_embeds-final.bin --output cat.safetensors [--class cat]

Both files are pickles, and the mapper's holds a whole Python object. Nothing in them is executed: names that are not
plain containers and tensors become inert stand-ins, of which only the attribute `w` of the encoder is read. Needs
torch and safetensors only.
"""

import argparse
import json
import pickle
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS = 16
# What may be called while unpickling: these build containers and tensors and do nothing else.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "float32"),
    ("torch", "float64"),
    *(("torch", f"{kind}Storage") for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Bool", "Byte")),
    ("torch.storage", "TypedStorage"),
    ("torch.storage", "UntypedStorage"),
    ("__builtin__", "set"),
    ("builtins", "set"),
}


class Inert:
    """Stands for any object that is not allowed; takes whatever it is given and does nothing with it."""

    def __new__(cls, *_args, **_kwargs):
        return object.__new__(cls)

    def __init__(self, *_args, **_kwargs):
        pass

    def __setstate__(self, state):
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, _key, _value):
        pass

    def append(self, _value):
        pass

    def extend(self, _values):
        pass


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        return Inert


def read(path: Path):
    restricted = types.ModuleType("restricted")
    restricted.Unpickler = Unpickler
    restricted.load = lambda file, **options: Unpickler(file, **options).load()
    try:
        return torch.load(path, map_location="cpu", pickle_module=restricted, weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError, AttributeError) as error:
        sys.exit(f"error: {path}: no file of torch.save that holds tensors only ({error})")


def tensor(found, what: str, path: Path) -> torch.Tensor:
    if not isinstance(found, torch.Tensor):
        sys.exit(f"error: {path}: {what} is missing or no tensor; give a file of NeTI's release")
    return found.detach().float().contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mapper", type=Path, required=True)
    parser.add_argument("--embeds", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--class", dest="noun", help="the super-category, where the file does not say it")
    args = parser.parse_args()

    embeds = read(args.embeds)
    if not isinstance(embeds, dict) or len(embeds) != 1:
        sys.exit(f"error: {args.embeds}: one word with its vector was expected; give learned_embeds-*.bin")
    ((word, class_vector),) = embeds.items()
    class_vector = tensor(class_vector, "the word's vector", args.embeds).reshape(-1)

    file = read(args.mapper)
    if not isinstance(file, dict) or not {"state_dict", "cfg", "encoder"} <= file.keys():
        sys.exit(f"error: {args.mapper}: state_dict, cfg and encoder were expected; give mapper-*.pt")
    state, config = file["state_dict"], file["cfg"]
    model = config.get("model", config)
    # The first layer is stored twice, and files of resumed runs hold the frequencies here too.
    names = [f"{layer}.{part}" for layer in ("net.1", "net.2", "net.4", "net.5", "output_layer.0") for part in ("weight", "bias")]
    tensors = {name: tensor(state.get(name), name, args.mapper) for name in names}
    encoded = bool(model.get("use_positional_encoding", True))
    if encoded:
        for part in ("weight", "bias"):
            found = state.get(f"input_layer.{part}", state.get(f"net.0.{part}"))
            tensors[f"input_layer.{part}"] = tensor(found, f"input_layer.{part}", args.mapper)
        frequencies = state.get("encoder.w", getattr(file["encoder"], "w", None))
        tensors["encoder.w"] = tensor(frequencies, "the encoder's w", args.mapper)

    bypass, dropout = bool(model.get("output_bypass", True)), bool(model.get("use_nested_dropout", True))
    sigmas = model.get("pe_sigmas") or {"sigma_t": 0.03, "sigma_l": 2.0}
    outputs = tensors["output_layer.0.weight"].shape[0]
    if outputs != class_vector.numel() * (2 if bypass else 1):
        sys.exit(f"error: {args.mapper} gives {outputs} numbers, but the vector in {args.embeds} has {class_vector.numel()}")
    settings = {
        "mapper": {
            "layers": LAYERS,
            "outputs": outputs,
            "hidden": tensors["net.4.weight"].shape[0],
            "positional_encoding": encoded,
            "sigma_time": float(sigmas["sigma_t"]),
            "sigma_layer": float(sigmas["sigma_l"]),
            "time_anchors": int(model.get("num_pe_time_anchors", 10)),
            "nested_dropout": float(model.get("nested_dropout_prob", 0.5)) if dropout else 0.0,
        },
        "norm_mode": "joint" if model.get("normalize_mapper_output", True) else "none",
        "target_norm": float(model.get("target_norm") or class_vector.norm()),
        "output_bypass": bypass,
        "bypass_strength": 0.2,
    }
    noun = args.noun or config.get("data", {}).get("super_category_token")
    record = {"method": "neti", "token": word, "class": noun, "settings": settings}
    metadata = {"format": "pt", "personalize.format_version": "3", "personalize.concept": json.dumps(record)}
    tensors["class_vector"] = class_vector
    # Format 3 writes [1, ..., 1], which no other program takes for a word's vectors.
    framed = {name: t.clone().reshape(1, *t.shape, 1) for name, t in tensors.items()}
    partial = args.output.with_suffix(".tmp")
    save_file(framed, partial, metadata=metadata)
    partial.replace(args.output)
    print(args.output)


if __name__ == "__main__":
    main()
