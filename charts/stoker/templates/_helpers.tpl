{{- define "stoker.labels" -}}
app.kubernetes.io/name: stoker
app.kubernetes.io/version: {{ .Chart.AppVersion }}
{{- end }}

{{/* Of an image: repository@digest, or repository:tag. */}}
{{- define "stoker.image" -}}
{{- $image := index . 0 }}{{ $chart := index . 1 -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag | default $chart.AppVersion }}{{ end }}
{{- end }}

{{/* What all our containers are held to. */}}
{{- define "stoker.securityContext" -}}
runAsNonRoot: true
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Selects the pods of our runtimes, which label them so. */}}
{{- define "stoker.podSelector" -}}
matchExpressions:
  - {key: stoker.dev/runtime, operator: Exists}
{{- end }}

{{/* The formats that stoker serves, and the versions by which KServe's users name them: it compares them as text. */}}
{{- define "stoker.formats" -}}
lightgbm: ["3", "4"]
mlflow: ["1", "2", "3"]
onnx: ["1"]
sklearn: ["0", "1"]
xgboost: ["1", "2", "3"]
{{- end }}

{{/* Of a peer in the words of Cilium. */}}
{{- define "stoker.ciliumLabels" -}}
k8s:io.kubernetes.pod.namespace: {{ .namespace }}
{{- range $label, $value := .labels }}
k8s:{{ $label }}: {{ $value | quote }}
{{- end }}
{{- end }}
