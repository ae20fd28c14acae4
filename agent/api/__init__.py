"""The Actions API: HTTP in front of the broker, with a database of what became of each action.

Stateless: everything that has to last is in the database and on the broker, so any number of
instances can stand side by side. Nothing else in the agent knows HTTP or SQL.
"""
