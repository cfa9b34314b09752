"""What every unit contributes: scores, the ablation engine, the score table, ranking, racing."""
