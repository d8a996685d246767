"""One page of many results.json files: `vistok eval leaderboard DIR out=board.html`."""
