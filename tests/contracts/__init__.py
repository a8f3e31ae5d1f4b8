"""What every model and every distiller must do; a subclass says how one is made."""
