"""What layers that learn their rates learn, where it is known what they should.

--concrete   A line through 50 inputs with noise of known size sigma, 200 examples: the rate that ConcreteDropout learns, its own
             objective and the held-out negative log-likelihood (of 200 samples of the network), there and with the rate fixed.
             The best rate is known: the posterior variance sigma^2 / N of a weight, |w|^2 / d in its mean square, is that of
             the noise of rate a / (1 + a), a = sigma^2 d / (N |w|^2).
--sparse     LeNet-300-100 on scikit-learn's 8 x 8 digits, 1,347 for training and 450 for testing: plain, and with
             SparseVariationalDropout around each layer, pruned after training as the layer says. The divergence has its whole
             weight 1 / N, or a share of it.

Both if none is named. Run: python benchmarks/learned_rates.py [--concrete] [--sparse] [--json FILE]
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import sys

import keras
import numpy as np
from report import write
from scipy.special import logsumexp

from keras_dropout import ConcreteDropout, SparseVariationalDropout

INPUTS, EXAMPLES, HELD_OUT, SAMPLES = 50, 200, 2000, 200
FIXED = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
WARM_UP = (5, 20)  # epochs between which the weight of the divergence grows from 0 to 1 / N
EPOCHS = 300
SHARES = (1.0, 0.3, 0.1, 0.03)


def concrete() -> list[dict]:
    return [row for sigma in (0.5, 1.0, 2.0) for row in concrete_at(sigma)]


def concrete_at(sigma: float) -> list[dict]:
    """One row for each fixed rate, and one for the learned."""
    generator = np.random.default_rng(0)
    line = generator.normal(size=(INPUTS, 1))
    line /= np.linalg.norm(line)
    x = generator.normal(size=(EXAMPLES + HELD_OUT, INPUTS)).astype("float32")
    y = (x @ line + sigma * generator.normal(size=(len(x), 1))).astype("float32")
    held_out = x[EXAMPLES:], y[EXAMPLES:]
    train = np.tile(x[:EXAMPLES], (50, 1)), np.tile(y[:EXAMPLES], (50, 1))  # an epoch of Keras is 200 steps

    def trained(rate: float, learn: bool) -> dict:
        keras.utils.set_random_seed(1)
        layer = ConcreteDropout(
            rate,
            keras.layers.Dense(1, use_bias=False),
            weight_regularizer=0.1**2 * sigma**2 / EXAMPLES,
            dropout_regularizer=2 * sigma**2 / EXAMPLES,
            seed=1,
        )
        model = keras.Sequential([keras.Input((INPUTS,)), layer])
        layer.logit.trainable = learn
        schedule = keras.optimizers.schedules.CosineDecay(0.03, 2000)
        model.compile(keras.optimizers.Adam(schedule), "mse", steps_per_execution=50)
        losses = model.fit(*train, batch_size=50, epochs=10, verbose=0).history["loss"]
        drawn = np.stack([np.asarray(layer(held_out[0], training=True)) for _ in range(SAMPLES)])
        logs = -((drawn - held_out[1]) ** 2) / (2 * sigma**2) - np.log(sigma) - np.log(2 * np.pi) / 2
        held_out_nll = float(-(logsumexp(logs, axis=0) - np.log(SAMPLES)).mean())
        return {"sigma": sigma, "learned": learn, "rate": layer.rate, "objective": losses[-1], "held_out_nll": held_out_nll}

    known = sigma**2 * INPUTS / EXAMPLES
    known /= 1 + known
    rows = [trained(rate, learn=False) for rate in FIXED] + [trained(0.1, learn=True)]
    best, learned = min(rows[:-1], key=lambda row: row["held_out_nll"]), rows[-1]
    print(f"noise {sigma}, known rate {known:.3f}")
    for row in rows:
        label = "learned" if row is learned else "best fixed" if row is best else "fixed"
        print(f"  {label:10} rate {row['rate']:.3f}  objective {row['objective']:.4f}  held-out nll {row['held_out_nll']:.4f}")
    return [row | {"known_rate": known} for row in rows]


def sparse() -> list[dict]:
    """One row for the plain net, and one for a pruned net for each share of the divergence."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, y = (images[order] / 16).astype("float32"), labels[order]
    train, test = (x[:1347], y[:1347]), (x[1347:], y[1347:])
    size = len(train[0])

    def lenet(around) -> keras.Model:
        keras.utils.set_random_seed(0)
        hidden = [around(keras.layers.Dense(units, activation="relu")) for units in (300, 100)]
        model = keras.Sequential([keras.Input((64,)), *hidden, around(keras.layers.Dense(10))])
        schedule = keras.optimizers.schedules.PolynomialDecay(1e-3, EPOCHS * -(-size // 64), 1e-5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
        return model

    def pruned(share: float) -> keras.Model:
        model = lenet(lambda layer: SparseVariationalDropout(layer, kl_weight=0.0))

        def warm_up(epoch, logs=None):
            first, last = WARM_UP
            for layer in model.layers:
                layer.kl_weight = share * min(max((epoch - first) / (last - first), 0), 1) / size

        warming = keras.callbacks.LambdaCallback(on_epoch_begin=warm_up)
        model.fit(*train, batch_size=64, epochs=EPOCHS, callbacks=[warming], verbose=0)
        plain = keras.models.clone_model(model, clone_function=lambda layer: layer.pruned())
        plain.compile(loss=model.loss, metrics=["accuracy"])
        return plain

    plain = lenet(lambda layer: layer)
    plain.fit(*train, batch_size=64, epochs=EPOCHS, verbose=0)
    rows = [figures("plain", plain, test)]
    for share in SHARES:
        rows.append(figures(f"pruned, kl_weight {share:g} / N", pruned(share), test) | {"kl_share": share})
    for row in rows:
        row["times_fewer"] = rows[0]["weights"] / row["weights"]
        print(
            f"{row['net']:26} test accuracy {row['test_accuracy']:.4f}  weights {row['weights']:6} {row['by_layer']}"
            f"  {row['times_fewer']:.1f} times fewer"
        )
    return rows


def figures(name: str, model: keras.Model, test: tuple) -> dict:
    by_layer = [int(np.count_nonzero(layer.get_weights()[0])) for layer in model.layers]
    accuracy = model.evaluate(*test, verbose=0)[1]
    return {"net": name, "test_accuracy": float(accuracy), "weights": sum(by_layer), "by_layer": by_layer}


def main() -> None:
    parts = {"--concrete": concrete, "--sparse": sparse}
    chosen = [part for part in parts if part in sys.argv] or list(parts)
    write("learned_rates", {part.strip("-"): parts[part]() for part in chosen})


if __name__ == "__main__":
    main()
