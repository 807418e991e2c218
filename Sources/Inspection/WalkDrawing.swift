extension WalkReport {
  var drawing: String { "" }
}
