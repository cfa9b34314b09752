"""Attribution: the contract of its methods, and the parts of a clip that all are asked about and scored on."""
