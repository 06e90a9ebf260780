"""ScienceWorld: experiments in a school laboratory."""
