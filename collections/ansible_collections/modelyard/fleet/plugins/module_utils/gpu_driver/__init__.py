"""Which driver a host gets, and whether what is there is one: pure functions of facts, platform data and a wish.

Platform data is a file of the role ``gpu_driver`` (``vars/``); ``ubuntu_24_04.yml`` says what its fields are.
"""
