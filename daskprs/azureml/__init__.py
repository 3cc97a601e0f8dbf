"""The Azure-compatible door: names and signatures of Azure ML, on daskprs."""
