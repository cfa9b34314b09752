"""The commands that train, analyse, or look at data; `sightline.commands.registry` lists them."""
