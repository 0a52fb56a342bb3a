"""Everything that trains: the only place where TensorFlow and Keras are imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its greetings are not for the user
