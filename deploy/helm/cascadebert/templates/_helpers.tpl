{{- define "cascadebert.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cascadebert.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "cascadebert.labels" -}}
{{ include "cascadebert.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "cascadebert.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "cascadebert.fullname" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "cascadebert.image" -}}
{{- $name := .Values.image.repository | default (ternary "cascadebert-triton" "cascadebert-cpu" (eq .Values.accelerator "gpu")) -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "cascadebert.probe" -}}
exec:
  command: [python3, -m, cascadebert_supervisor, healthcheck]
{{- end -}}

{{- /* The time of one check: a probe, a look at the metrics, and the start of Python, each cascade. */ -}}
{{- define "cascadebert.probeLimit" -}}
{{- add .Values.health.probeTimeoutSeconds 15 -}}
{{- end -}}

{{- define "cascadebert.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "cascadebert.autoscaled" -}}
{{- if or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}true{{- end -}}
{{- end -}}

{{- define "cascadebert.check" -}}
{{- $v := .Values -}}
{{- if and (eq $v.repository.source "pvc") (not $v.repository.pvc.claimName) -}}
{{- fail "repository.source is pvc, and repository.pvc.claimName is empty: name the claim that holds the model repository" -}}
{{- end -}}
{{- if and (ne $v.repository.source "pvc") (not $v.repository.bucket.path) -}}
{{- fail (printf "repository.source is %s, and repository.bucket.path is empty: give bucket/prefix" $v.repository.source) -}}
{{- end -}}
{{- if and (eq $v.repository.source "pvc") $v.repository.bucket.path -}}
{{- fail (printf "repository.source is pvc, and repository.bucket.path is %q: set source to s3 or gcs, or leave the path empty" $v.repository.bucket.path) -}}
{{- end -}}
{{- if and (eq $v.repository.source "gcs") (or $v.repository.bucket.endpoint $v.repository.bucket.region) -}}
{{- fail "repository.bucket.endpoint and region are for s3, and repository.source is gcs: leave them empty" -}}
{{- end -}}
{{- if and $v.autoscaling.hpa.enabled $v.autoscaling.keda.enabled -}}
{{- fail "autoscaling.hpa and autoscaling.keda are both enabled: enable one" -}}
{{- end -}}
{{- if and $v.autoscaling.keda.enabled (not $v.autoscaling.keda.prometheus) -}}
{{- fail "autoscaling.keda.prometheus is empty: give the address of Prometheus, such as http://prometheus.monitoring:9090" -}}
{{- end -}}
{{- if and $v.autoscaling.hpa.enabled (lt (int $v.autoscaling.min) 1) -}}
{{- fail "autoscaling.min is 0, which needs KEDA: enable autoscaling.keda, or set min to 1 or more" -}}
{{- end -}}
{{- if and $v.autoscaling.keda.enabled (eq (int $v.autoscaling.min) 0) (not $v.autoscaling.keda.extraTriggers) -}}
{{- fail "autoscaling.min is 0, and autoscaling.keda.extraTriggers is empty: without a server there are no figures of a cascade, so give a trigger that starts the first one, or set min to 1" -}}
{{- end -}}
{{- if gt (int $v.autoscaling.min) (int $v.autoscaling.max) -}}
{{- fail (printf "autoscaling.min is %v and max is %v: max must not be smaller" $v.autoscaling.min $v.autoscaling.max) -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.tls.secretName) -}}
{{- fail "tls.enabled is true, and tls.secretName is empty: name a secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and $v.tls.mutual (not $v.tls.enabled) -}}
{{- fail "tls.mutual is true, and tls.enabled is false: enable both" -}}
{{- end -}}
{{- end -}}

{{- define "cascadebert.servicePorts" -}}
{{- if not .Values.tls.enabled -}}
- {name: http, port: 8000, targetPort: http, appProtocol: http}
{{ end -}}
- {name: grpc, port: 8001, targetPort: grpc, appProtocol: {{ ternary "https" "kubernetes.io/h2c" .Values.tls.enabled }}}
- {name: metrics, port: 8002, targetPort: metrics, appProtocol: http}
{{- end -}}
