"""What the field already knows: one entry per paper, found by the weakness that it cures.

    cognition/*.md -> entry.parse -> base.Base -> search -> what the planner reads, what the grammar leans to

The paper's cognition base (section 2.4 and appendix D.5), with entries that can be checked: `lint` looks at
them, and their sketches are executed by a test.
"""
