"""Training and export of networks; the only package that imports TensorFlow and Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # omits start-up messages, which help no user
