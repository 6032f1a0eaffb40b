"""Steps between loading and writing, as MONAI transforms and the functions behind them."""
