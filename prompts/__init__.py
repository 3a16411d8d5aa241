"""One prompt template per agent role. There are none while the grammar fills the roles."""
