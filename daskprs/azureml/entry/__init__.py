"""What entry scripts that were written for Azure ML find in their process.

The modules that they import, such as ``azureml.core.model``, stand in
``entry_process/azure_modules``; what those hold is here. Nothing of it is imported before a script
asks for it.
"""
