"""Table names, key and id builders, vocabularies: what two Jobplane functions must agree on."""
