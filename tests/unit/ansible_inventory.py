"""An inventory read as a running play would see it, without running one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.modelyard.fleet.plugins.plugin_utils.wish import Wish, read_wish

from modelyard.inventory import Problem, check_files


def task_vars(directory: Path) -> tuple[dict[str, Any], DataLoader]:
    """The variables that an action sees on the inventory's first host."""
    loader = DataLoader()
    inventory = InventoryManager(loader, sources=[str(directory)])
    hostvars = HostVars(inventory, VariableManager(loader, inventory), loader)
    first = inventory.get_hosts()[0].name
    groups = inventory.get_groups_dict()
    return {"hostvars": hostvars, "groups": groups, "inventory_hostname": first}, loader


def wish(directory: Path) -> Wish:
    variables, loader = task_vars(directory)
    return read_wish(variables, loader)


def problems(directory: Path) -> list[Problem]:
    """Everything that is wrong; of files that Ansible itself cannot read, what the files alone say."""
    try:
        return wish(directory).problems
    except AnsibleError:
        return check_files(directory)
