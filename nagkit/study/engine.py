"""A papermill engine whose kernel talks over local sockets: `papermill --engine ipc` (the default is unencrypted TCP)."""

from papermill.engines import NBClientEngine
from traitlets.config import Config


class LocalEngine(NBClientEngine):
    """papermill's own engine, with the kernel's transport set to IPC."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **options):
        config = Config({"KernelManager": {"transport": "ipc"}})
        return super().execute_managed_notebook(nb_man, kernel_name, config=config, **options)
