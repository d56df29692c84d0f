"""What dropout does where pretrained text models are tuned: the studies of docs/where.md.

Run: python benchmarks/fine_tuning.py lora|stopped [--ledger FILE] [--json FILE]
     python examples/bert.py; python benchmarks/fine_tuning.py bert [--ledger FILE] [--json FILE]    (needs KerasHub)

lora     the recipe lora-reviews
stopped  the same with early stopping
bert     examples/bert.py, from the weights that it wrote into this folder: dropout inside of the encoder, or on the pooled output
"""

import json
import subprocess
import sys
from pathlib import Path

from report import write

EXAMPLE = Path(__file__).parents[1] / "examples" / "bert.py"
INSIDE = "*/self_attention_layer={0}, */feedforward_output_dense={0}"
VARIANTS = {f"encoder-{rate}": INSIDE.format(rate) for rate in (0.1, 0.3)}
VARIANTS |= {f"pooled-{rate}": f"*/pooled_dense={rate}" for rate in (0.1, 0.3)}
STUDIES = {
    "lora": ["lora-reviews"],
    "stopped": ["lora-reviews", "--early-stopping", "3"],
    "bert": [
        f"{EXAMPLE}:classifier",
        *("--data", f"{EXAMPLE}:lines", "--from-weights", "--epochs", "6", "--seeds", "6"),
        *(part for name, places in VARIANTS.items() for part in ("--variant", f"{name}={places}")),
    ],
}


def main() -> None:
    name = sys.argv[1]
    ledger = sys.argv[sys.argv.index("--ledger") + 1] if "--ledger" in sys.argv else f"{name}.db"
    command = [sys.executable, "-m", "keras_dropout.cli", "compare", *STUDIES[name], "--json", "--ledger", ledger]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for variant in found["variants"]:  # the rest of each run is in the ledger
        variant["runs"] = [{name: run[name] for name in ("key", "seed", "status", "test_loss")} for run in variant["runs"]]
        print(variant["name"], {name: round(variant["mean"][name], 4) for name in ("test_loss", "test_accuracy", "train_loss")})
    for each in found["comparisons"]:
        print(each["variant"], each["metric"], each["difference"], each["interval"], each["p_adjusted"], each["verdict"])
    write("fine_tuning", {name: found[name] for name in ("study", "variants", "comparisons", "warnings")})


if __name__ == "__main__":
    main()
