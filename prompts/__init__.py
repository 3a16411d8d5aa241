"""One prompt template per agent role, as markdown with front matter; `asi_lab.llm.prompting` reads them."""
