"""The endpoint registry: the contract between what deploys engines and what routes to them."""
