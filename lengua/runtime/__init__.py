"""What any program needs: errors, files, progress, parallel work, the Hub's client. It knows nothing of speech."""
