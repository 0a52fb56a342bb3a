"""The cloud node: deepest section, database, page. `python -m cloud_app --help`"""
