"""Jobs as YAML, in the form of Azure ML's command line (v2): parallel, command, pipeline."""
