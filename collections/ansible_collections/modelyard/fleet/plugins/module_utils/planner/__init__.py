"""The planner: models x hosts x what runs now -> assignments. Pure functions, no Ansible, no I/O."""
