"""A table as it is: patients with numbers, a yes/no and blanks; made-up rows, filled blanks, and rows asked for.

``python examples/table.py [--epochs N]`` takes half a minute or so. On the command line the same is ``python -m
pyro_vae.train --data patients.csv``, then ``pyro-vae sample``, ``impute`` and ``compare-table``.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_diabetes

import pyro_vae
from pyro_vae.inference import compare_tables, impute, sample_given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, help="Default: as many as the data ask for.")
    args = parser.parse_args()

    patients = load_diabetes(as_frame=True, scaled=False).frame.astype({"age": int, "s1": int})
    patients["sex"] = patients["sex"].map({1: "male", 2: "female"})
    patients = patients.sample(frac=1, random_state=0, ignore_index=True)
    known, held_out = patients[:300], patients[300:].reset_index(drop=True)
    blank = known.mask(np.random.default_rng(0).random(known.shape) < 0.05)

    # What each column is, is found from the data; log-densities are in the columns' own units.
    data = pyro_vae.data.from_frame(blank)
    print("\n".join(data.table.describe()))
    torch.manual_seed(0)
    vae = pyro_vae.build(data.shape, table=data.table, missing=True)
    pyro_vae.fit(vae, data, epochs=args.epochs, seed=0)
    vae.eval()

    torch.manual_seed(1)
    made = data.table.decode(vae.sample(len(held_out)))
    print("\nmade up", made.head(3), sep="\n")
    compared = compare_tables(known, made, held_out=held_out, target="target")
    auc = compared.two_sample["gradient boosting"]
    print(f"told from held-out rows with AUC {auc.value:.3f} ± {auc.se:.3f}; 0.5 is by chance")

    evidence = pyro_vae.log_evidence(vae, held_out, num_samples=200, seed=0)
    print(f"log P(X) {evidence.mean:.2f} nats per held-out row")

    # P(others | bmi and sex): what is given may be any of the columns.
    heavy = sample_given(vae, 200, {"bmi": 38, "sex": "female"}, seed=0)
    means = data.table.decode(heavy.x)[["bp", "s6", "target"]].mean()
    print(f"\nmean of 200 women with a body mass index of 38 {means.round(1).to_dict()}")
    print(f"mean of all patients {known[list(means.index)].mean().round(1).to_dict()}")

    # Blanks are draws from p(blank | the rest): their mean is the best guess in squared error.
    holes = held_out.copy()
    holes["bmi"] = np.nan
    completions = impute(vae, holes, num_completions=20, seed=0).completions
    at = [column.name for column in data.table.modelled].index("bmi")
    guess = data.table.in_units(completions)[..., at].double().mean(0).numpy()
    error = np.sqrt(((guess - held_out["bmi"]) ** 2).mean())
    print(
        f"\nbody mass index filled in: error {error:.2f}, where its standard deviation is {held_out['bmi'].std():.2f}"
    )


if __name__ == "__main__":
    main()
