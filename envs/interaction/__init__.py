"""What one step is made of: past, observation, response, reward, and the draws behind them."""
