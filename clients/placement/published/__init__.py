"""Published: placements of papers as their authors describe or release them, kept for comparison.

They are no advice: `study=gradcut` measures what each of them costs and gains beside GradCut and
fixed layers. You may add a paper's form here, with its source and every deviation in the docstring.
"""
