"""The generated part of the documentation site: pages from code, and files outside of docs/."""
