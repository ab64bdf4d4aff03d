"""Parameters and multiply-accumulates of MBv3 as integer coefficients, fitted to measured networks and checked on others."""

import json
import re

import numpy as np

from nagkit import paths
from nagkit.data import io, upstream
from nagkit.errors import NagkitError
from nagkit.rng import numpy_stream
from nagkit.spaces import mbv3

_HELD_OUT = 0.25  # of the distinct networks


def fit() -> dict:
    """Fit the coefficients, write `data/mbv3_cost.json`, and return that card.

    The first two slots of a stage are never absent, so their nine indicators add up to the constant: they count from the
    operation 3×3, expansion 3, whose coefficient there is 0. Least squares on three quarters of the distinct networks, rounded
    to integers; `NagkitError` when the tables are missing, leave a coefficient undetermined, or differ from the linear law.
    """
    rows = upstream.measured_networks()
    distinct, number = np.unique(rows.archs, axis=0, return_inverse=True)
    chosen = numpy_stream(0, "cost/held out").permutation(len(distinct)) < _HELD_OUT * len(distinct)
    test = chosen[number.ravel()]
    features = mbv3.design(rows.archs)
    free = np.ones(features.shape[1], bool)
    free[[1 + 9 * slot for slot in range(20) if slot % 4 < 2]] = False
    if np.linalg.matrix_rank(features[~test][:, free].astype(float)) < free.sum():
        raise NagkitError("the measured networks leave some cost coefficients undetermined; run `nagkit data verify`")
    card = {
        "what": "Cost of MBv3 networks (width 1.0): constant + a coefficient per slot (row) and operation (column)",
        "rebuild": "nagkit fit cost",
        "unit": "parameters; multiply-accumulates of one 224×224 image",
        "fitted_rows": int((~test).sum()),
        "held_out_rows": int(test.sum()),
        "held_out_networks": int(chosen.sum()),
    }
    for name, values in (("params", rows.params), ("macs", rows.macs)):
        solution = np.zeros(features.shape[1])
        solution[free] = np.linalg.lstsq(features[~test][:, free].astype(float), values[~test].astype(float), rcond=None)[0]
        coefficients = solution.round().astype(np.int64)
        error = int(np.abs(features @ coefficients - values)[test].max())
        if error:
            raise NagkitError(f"{name} of held-out networks are off by up to {error}: not linear; run `nagkit data verify`")
        card[name] = {
            "held_out_largest_error": error,
            "constant": int(coefficients[0]),
            "slots": coefficients[1:].reshape(20, 9).tolist(),
        }
    text = re.sub(r"\[[\s\d,-]+\]", lambda row: " ".join(row[0].split()).replace("[ ", "[").replace(" ]", "]"),
                  json.dumps(card, indent=2, ensure_ascii=False))  # fmt: skip
    io.write_text(paths.DATA / "mbv3_cost.json", text + "\n")
    return card
