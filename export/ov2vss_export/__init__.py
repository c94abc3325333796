"""Export of the OV2VSS toolkit: checkpoint in, bundle of ONNX graphs out, with proof that they equal the model."""
