"""How much image features know: the accuracy of logistic regression on them."""

import numpy as np
import torch
import torch.nn.functional as F


def linear_probe(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Test accuracy in percent of multinomial logistic regression on features; its penalty is chosen on every fifth image."""

    def accuracy(train: slice | np.ndarray, penalty: float, test_x: np.ndarray, test_y: np.ndarray) -> float:
        inputs, targets = torch.from_numpy(x[train]), torch.from_numpy(y[train])
        weight = torch.zeros(x.shape[1] + 1, int(y.max()) + 1, requires_grad=True)
        solver = torch.optim.LBFGS([weight], max_iter=200, history_size=20, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            solver.zero_grad()
            value = F.cross_entropy(inputs @ weight[1:] + weight[0], targets) + penalty * weight[1:].square().sum()
            value.backward()
            return value

        solver.step(loss)
        guess = (torch.from_numpy(test_x) @ weight[1:] + weight[0]).argmax(dim=1).numpy()
        return 100 * float((guess == test_y).mean())

    held = np.arange(len(x)) % 5 == 0
    best = max((1e-4, 1e-3, 1e-2), key=lambda penalty: accuracy(~held, penalty, x[held], y[held]))
    return accuracy(slice(None), best, x_test, y_test)
