"""python -m ddnn.cli"""

from ddnn.cli import main

main()
