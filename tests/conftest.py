"Hypothesis without a time limit a case: the first call of an operation is slow, and machines differ."
from hypothesis import settings

settings.register_profile("groundup", deadline=None)
settings.load_profile("groundup")
