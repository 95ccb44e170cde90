"""A model in workers of `multiprocessing` or torch's DataLoader, by start methods. Run by test_workers.py."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import numpy as np

import samrt

IMAGES = [np.random.default_rng(seed).integers(0, 256, (40, 90, 3), dtype=np.uint8) for seed in range(4)]


def low_res(model: samrt.Model, embedding: samrt.Embedding) -> Any:
    return model.predict(embedding, [[30.0, 20.0]], [1]).low_res_masks


def of_argument(model: samrt.Model, embedding: samrt.Embedding) -> tuple[Any, samrt.Embedding, int | None]:
    """What a worker makes of a model and an embedding that were sent to it, its own embedding, and its threads."""
    predictor = samrt.SamPredictor(model)
    predictor.set_image(IMAGES[0])
    return low_res(model, embedding), model.encode(IMAGES[1]), model._origin.threads


def of_closed(model: samrt.Model) -> None:
    model.close()
    model.encode(IMAGES[0])


class DataSet:
    """A map-style data set that encodes with the model that it holds."""

    def __init__(self, model: samrt.Model) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        return low_res(self.model, self.model.encode(IMAGES[index]))


def check_pool(method: str, model: samrt.Model) -> None:
    embedding = model.encode(IMAGES[0])
    with multiprocessing.get_context(method).Pool(2) as pool:
        found, sent_back, threads = pool.apply(of_argument, (model, embedding))
        assert np.array_equal(found, low_res(model, embedding))
        assert np.array_equal(low_res(model, sent_back), low_res(model, model.encode(IMAGES[1])))
        assert threads == 1
        said = ""
        try:
            pool.apply(of_closed, (model,))
        except samrt.BackendError as error:
            said = error.facts
        assert "closed" in said
        pool.close()
        pool.join()


def check_process(method: str, model: samrt.Model) -> None:
    process = multiprocessing.get_context(method).Process(target=of_argument, args=(model, model.encode(IMAGES[0])))
    process.start()
    process.join(15)
    assert process.exitcode == 0, process.exitcode


def check_data_loader(method: str, model: samrt.Model) -> None:
    from torch.utils.data import DataLoader

    workers = 2 if method == "fork" else 1
    loader = DataLoader(DataSet(model), batch_size=None, num_workers=workers, multiprocessing_context=method)
    for image, found in zip(IMAGES, loader, strict=True):
        assert np.array_equal(found.numpy(), low_res(model, model.encode(image)))


if __name__ == "__main__":
    bundle, what, *start_methods = sys.argv[1:]
    with samrt.load(bundle, threads=1) as loaded:
        for start_method in start_methods:
            if what == "data_loader":
                check_data_loader(start_method, loaded)
            else:
                check_pool(start_method, loaded)
                check_process(start_method, loaded)
        low_res(loaded, loaded.encode(IMAGES[0]))
