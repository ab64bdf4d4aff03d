"""A papermill engine whose kernel talks over local sockets: `papermill --engine ipc` (the default is unencrypted TCP)."""

from pathlib import Path
from tempfile import TemporaryDirectory

from papermill.engines import NBClientEngine
from traitlets.config import Config


class LocalEngine(NBClientEngine):
    """papermill's own engine over IPC; every kernel has a folder for its sockets, so that several can run at once."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        with TemporaryDirectory(prefix="nagkit") as folder:
            config = Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder) / "kernel")}})
            return super().execute_managed_notebook(nb_man, kernel_name, config=config, **options)
