"""Stands on sys.path of every entry process under the name that scripts of Azure ML import."""

from daskprs.azureml.entry.unsupported import install

install()
