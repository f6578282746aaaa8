"""A model that is trained, evaluated and approved before it is used."""
