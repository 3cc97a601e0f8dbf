"""The modules of azureml that entry scripts import; those that are installed come first."""

import pkgutil

from daskprs.azureml.entry.unsupported import install

__path__ = pkgutil.extend_path(__path__, __name__)
install()
