"""The edge as it is: what is seen on its hosts, against what is declared, and who has its addresses. Looks only."""
