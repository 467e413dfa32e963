"""What Python users meet: a run that answers questions and draws its figures."""
